"""Cases that run on other machines: what travels, what runs there, and the engine that places it."""
