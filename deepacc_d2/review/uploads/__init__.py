"""New images dropped into the page: checked, kept, predicted in the background, taken in."""
