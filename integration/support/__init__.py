"""What the themes of the suite share: cases, fault proxies, images, ways to begin a manager."""
