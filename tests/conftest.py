"""Puts this folder on the path: helper modules beside this file serve all kinds of tests."""
