"""Container images of Gatebook and of what its tests need (docs/containers.md).

Everything an image holds is put into its build context first, checked against the hashes of our
locks, so that a build needs no network and takes any base image.
"""
