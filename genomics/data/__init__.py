"""DNA data: FASTA and BED for language modelling, tables of labelled sequences for classification."""
