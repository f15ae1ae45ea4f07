"""One module per table, figure or appendix of the paper, with the profiles and the artifact store that they share."""
