"""Systems of others, each configured as its documentation recommends for many short tasks."""
