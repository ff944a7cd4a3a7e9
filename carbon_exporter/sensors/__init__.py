"""Sensors: what does the hardware say?"""
