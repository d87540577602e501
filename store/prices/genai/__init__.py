"""The price data of the genai-prices package, read without importing the package itself."""
