"""What audio models are measured by: errors of waveforms and spectra, bits per sample, quality of generated sets."""
