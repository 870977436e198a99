"""An imitation of Descope's vault: connections of users, and the pages on which they make them."""
