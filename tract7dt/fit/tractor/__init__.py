"""The second engine: The Tractor draws and differentiates the sources, the steps and the errors are made here."""
