"""What several tests share: servers, callers, issuers and vaults that stand in for real ones."""
