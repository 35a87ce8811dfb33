"""ETTh1 of the Electricity Transformer data set; see ATTRIBUTION.md."""
