"""Streamlit pages: farmers see their fields, operators run the fleet."""
