"""One concern each: plain functions on a Call. A step reads what earlier steps wrote; steps do not call one another."""
