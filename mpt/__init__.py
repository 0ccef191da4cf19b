"""Hyperparameter search for meta prompt tuning (MAML, FoMAML, Reptile, MTL on soft prompts)."""
