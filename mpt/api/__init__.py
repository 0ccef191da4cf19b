"""The public interface: what `import mpt` offers, in the order in which it is used."""
