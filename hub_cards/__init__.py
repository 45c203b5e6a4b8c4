"""Templates of the cards on the Hub, installed as `lerobot_rlft.hub_cards`."""
