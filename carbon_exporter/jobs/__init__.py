"""Jobs: whose energy was it?"""
