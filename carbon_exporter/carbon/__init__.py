"""Carbon: what did it emit?"""
