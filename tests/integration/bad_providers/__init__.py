"""Providers that misbehave: each is a classified attempt with a reason, whichever provider it is.

All over sockets, by the way that a worker calls: catalog, balancer, provider, HTTP.
"""
