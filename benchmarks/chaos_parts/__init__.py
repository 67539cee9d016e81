"""The parts of chaos.py: the graph that it runs, the brokers that it breaks, who kills, and who judges."""
