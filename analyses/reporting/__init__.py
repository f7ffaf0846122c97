"""What is made of finished runs: several beside each other, all below a folder, figures and words for a paper."""
