"""DNA: tokenizer, FASTA and table data, HyenaDNA and Caduceus, tasks and commands."""
