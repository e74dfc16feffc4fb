"""`make hard`: conditions that come and go at random around one real daemon."""
