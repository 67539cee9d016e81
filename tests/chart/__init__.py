"""The Helm chart of deploy/helm: what it renders, what it refuses, and that its parts fit the product.

`make chart-test` installs helm and the schemas of Kubernetes, and runs these tests. Nothing here needs a cluster.
"""
