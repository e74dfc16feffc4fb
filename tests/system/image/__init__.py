"""The container image, built and run by podman on a base that mmdebstrap makes."""
