"Code of the example pages."
