"""Energy: how much was that?"""
