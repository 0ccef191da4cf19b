"""What a search will cost: measured rates, time, memory, price."""
