"Schedules, gradients, precision: how it trains."
