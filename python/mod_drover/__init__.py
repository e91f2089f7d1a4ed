"""What mod_drover gives to the applications it runs. Elsewhere this package holds nothing."""
