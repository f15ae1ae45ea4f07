"""What every chapter needs: profiles, the artifact store, kept results, verdicts, the trained supernet."""
