"""The service, its journal and its reading page. Research use only, not a medical device."""
