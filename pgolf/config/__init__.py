"""From words to a checked recipe: composition, schema, overlays, help, the plan. Nothing here ships."""
