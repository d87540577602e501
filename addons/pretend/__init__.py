"""A provider that only pretends: it speaks the real wire shapes, sells nothing, and keeps its own bill.

It shares no code with the gateway's readers or price book, so that agreement between the two means something.
"""
