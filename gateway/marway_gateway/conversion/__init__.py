"""Turning large bodies into what pods are sent, and answers back, in processes of their own."""
