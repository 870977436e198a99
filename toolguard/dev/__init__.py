"""What runs the whole story on one machine: a development authorization server and its company.

It is a development tool: nobody is asked for a password. It is for laptops, tests and demos, it
answers on loopback only, and nothing in the guard depends on it.
"""
