"""Tables, figures and exports; everything here is read from records, nothing is computed anew."""
