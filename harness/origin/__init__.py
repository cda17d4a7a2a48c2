"""HTTP origins to fetch from."""
