"""The worker: a session with the broker, a supervisor that forwards, children that run user code."""
