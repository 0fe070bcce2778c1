"""Growing: a fifth server, and its share of the rows while they are written"""
