"""The network: the graph of machines and links, how flows share links, and flows as events."""
