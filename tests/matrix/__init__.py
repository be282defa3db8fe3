"""Every public callable with every argument set to every odd value, in processes of their own."""
