"""What tokens cost: integer price tables, dated, from the genai-prices data, and the limits of models."""
