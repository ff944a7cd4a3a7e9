"""Publish: who wants to know?"""
