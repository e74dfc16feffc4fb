"""aca-tokend keeps OAuth2 access tokens for ACAEngine (PlaceOS) fresh in Vault or a file."""

__version__ = "0.1.0"
