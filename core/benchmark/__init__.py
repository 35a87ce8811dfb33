"""Speed and memory of the operators beside their peers and the limits of the chip: ``longscan bench``.

``command`` reads the line, ``contests`` says what a contest is, one module for each operator lists its contests,
``timing`` measures, ``chip`` knows the limits, ``results`` prints and writes.
"""
