"""The product's rules. They know the relay, the store, agents and provisioners, and nothing of HTTP."""
