"Predict, interpret, export."
