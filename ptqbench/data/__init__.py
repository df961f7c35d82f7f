"""Images: the rendered fixture set and folders of photographs."""
