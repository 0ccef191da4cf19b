"""The small English world behind the embedded gym: its words and its skills."""
