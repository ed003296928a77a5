"""``headstart advise``: would unfreezing pay?"""
